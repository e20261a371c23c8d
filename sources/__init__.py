"""Where bytes come from: Kafka, Redis streams, files and supplier feeds, handed on as batches."""
