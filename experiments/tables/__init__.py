"""Tables: many seeds of several experiments side by side. `make table` lists them."""
