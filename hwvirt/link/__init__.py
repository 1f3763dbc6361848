"""The second path between two controllers: messages, session, transports."""
