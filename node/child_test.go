package node_test

const childMode = "as-child"

func child(args []string) int { return 2 }
