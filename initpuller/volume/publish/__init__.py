"""The last step of a pull: verify, rename, write the receipt; and the way back from it."""
