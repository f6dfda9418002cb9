"""Many runs, one table: which to make, what they say, and how sure that is."""
