"""What a team tunes: promotion, and what a signal means."""
