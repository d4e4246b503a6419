"""Recording feeds, and serving recordings at their own pace."""
