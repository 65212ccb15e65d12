package failpoint

import "slices"

// Names is the one table of all failpoints. A campaign in which one of them is
// never hit has failed. The steps of a WriteFile or Appender of package
// atomicfile are its point's name with the step appended: see Durable and
// Appending.
var Names = slices.Concat(
	Durable("test.file"),
	Appending("test.log"),
	Durable("feedback.create"),
	Appending("feedback.append"),
	Durable("feedback.trim"),
	[]string{"feedback.open.cut", "feedback.open.sync"},
)

// Durable lists the failpoints of an atomicfile.WriteFile with that point.
func Durable(point string) []string {
	return []string{point + ".write", point + ".sync", point + ".rename", point + ".dirsync"}
}

// Appending lists the failpoints of an atomicfile.Appender with that point.
func Appending(point string) []string {
	return []string{point + ".write", point + ".sync"}
}
