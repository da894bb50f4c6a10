"""What runs in the child process: its main loop, measurements for bench, a worker's server."""
