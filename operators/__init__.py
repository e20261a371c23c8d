"""The rules of stock, pure: no clock, no network, no file; one operator a file."""
