"""What runs inside a kernel of the lab: the first process, and helpers for programs that set devices up there."""
