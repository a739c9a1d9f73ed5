//! A JSON-RPC node with a synthetic chain that can be told to lie.
