// Package nodeset reads and writes sets of nodes as people write them: a list
// of names, ranges in brackets, groups, and what is left out.
//
//	n1,n2,n7            three nodes
//	n[1-20]             n1 to n20
//	n[01-20]            n01 to n20: the ends say how many digits
//	n[1-20/2]           n1, n3, … n19
//	r[1-3]n[1-4,9]      fifteen nodes
//	@mail               a group; @* and * are all nodes
//	@mail,!n7           the group without n7, wherever the ! stands
//
//	nodes, err := nodeset.Parse("@mail,!n[3-5]", nodeset.Known{Nodes: all, Groups: groups})
//	text := nodeset.Fold(nodes)     // "n[1-2,6-20]"
//
// Parse keeps the order in which nodes are first named, so that the first node
// of a set is the first to be asked. Fold of what Parse returned, parsed again,
// is the same set.
//
// It is no query language: it knows names and nothing else of a node.
package nodeset
