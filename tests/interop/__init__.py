"""Other implementations, as real peers and as recordings of them."""
