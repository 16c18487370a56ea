"""What each picture shows, as frozen records: pure functions of a story, without a drawing library."""
