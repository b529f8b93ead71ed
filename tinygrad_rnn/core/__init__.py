"""The engine: tensors, the one definition form, broadcasting, the tape."""
