"""What a run tells: header, sections of failed tests, artifacts, summary."""
