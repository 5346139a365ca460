"""What two scripts share, and pure logic that is worth testing by itself."""
