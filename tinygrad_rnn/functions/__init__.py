"""The rest of what NumPy has, on top of the table: new tensors, composed functions, Tensor's operators."""
