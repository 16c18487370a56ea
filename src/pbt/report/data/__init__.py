"""The data of each figure as a frozen record: pure functions of a `RunSnapshot`, without a drawing library."""
