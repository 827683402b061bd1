"""XSTest: safe prompts that sound unsafe, and unsafe ones beside them."""
