"""What a download is, without any network: what to take of a repository, and files made whole."""
