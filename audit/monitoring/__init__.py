"""What machines ask: whether this process lives, whether the product can work, its figures."""
