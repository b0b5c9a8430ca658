"""Everything that touches Kafka: events, topics, producers, the batch source, replay."""
