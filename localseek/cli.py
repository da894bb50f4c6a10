"""The command line."""


def main() -> int:
    """Run one verb."""
    return 0
