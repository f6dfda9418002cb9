"""What docs/methods.md is made from: the papers, and the code that writes the page."""
