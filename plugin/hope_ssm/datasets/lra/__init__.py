"""The data of the Long-Range Arena in the layout of state-spaces/s4: made here, fetched, checked and read."""
