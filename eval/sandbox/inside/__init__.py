"""What runs within the sandbox: it imports the standard library alone, and none of our own."""
