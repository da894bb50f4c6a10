"""All that the app shows, as plain values, and how actions change it. No Textual, no threads."""
