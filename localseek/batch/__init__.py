"""Many prompts from a file, answered into another, each answer safe once written."""
