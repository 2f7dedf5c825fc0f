"""Speed: models timed in processes of their own, taking turns."""
