"""Pages of documentation, and `conventions_page`, which writes one of them."""
