"""Models beside each other: judged on the same frames and scenes, promoted to champion, shown."""
