"""Where results go: Redis, Kafka, files and channel webhooks, each flushed before an epoch counts."""
