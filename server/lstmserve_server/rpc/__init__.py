"""The gRPC surface: dispatch, authentication, codecs, streams, health."""
