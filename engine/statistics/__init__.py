"""What numbers tell beside their means: searches over sizes, intervals over both splits."""
