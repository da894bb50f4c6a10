"""What a conversion will write: each tensor with its pieces, type and place in the file."""
