"""What is drawn: each widget takes plain state and shows it; none decides anything."""
