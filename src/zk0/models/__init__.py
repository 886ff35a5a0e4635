"""Models beside each other: compared on the same frames and scenes, promoted to champion, shown, published."""
