"""What the classes of all frameworks share: settings, backends, the way of a chat request."""
