"""Tables, comparisons and pictures of finished runs."""
