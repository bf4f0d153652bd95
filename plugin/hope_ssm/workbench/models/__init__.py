"""The models of the workbench: encoder, blocks with a kernel, decoder."""
