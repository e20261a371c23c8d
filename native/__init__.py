"""What is called in C: librdkafka's own interface, and memory by its address."""
