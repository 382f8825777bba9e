"""From raw video to shards."""
