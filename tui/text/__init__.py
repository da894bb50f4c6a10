"""What a person writes and takes along: attachments, earlier prompts, code blocks, exports."""
