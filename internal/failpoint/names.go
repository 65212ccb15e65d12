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
	Durable("transfer.export"),
	Durable("tree.record"),
	Durable("tree.end"),
	[]string{"transfer.stage.mkdir", "transfer.stage.rename", "transfer.stage.dirsync"},
	Durable("transfer.stage.record"),
	[]string{"transfer.piece.write", "transfer.map.stagesync", "transfer.map.write", "transfer.map.sync"},
	[]string{"transfer.map.forget", "transfer.takeover.map"},
	[]string{"transfer.publish.sync", "transfer.publish.stagedir"},
	Durable("transfer.publish.result"),
	[]string{"transfer.publish.state", "transfer.publish.rename", "transfer.publish.targetdir", "transfer.publish.leavedir"},
	[]string{"transfer.keep.exchange", "transfer.keep.rename"},
	Durable("treein.record"),
	Durable("treein.result"),
	[]string{"treein.stagedir", "treein.lines", "treein.syncfs", "treein.state", "treein.rename"},
	[]string{"treein.keepold", "treein.targetdir", "treein.leavedir"},
	[]string{"treein.move", "treein.aside", "treein.delete", "treein.rootsync"},
	[]string{"device.write", "device.sync", "device.fsync"},
	Durable("command.start"),
	Durable("job.file"),
	[]string{"job.dir.sync", "job.start", "job.finish", "job.ack"},
	[]string{"master.start", "master.attempt", "master.state", "master.wait", "master.final"},
	Durable("pki.file"),
	Durable("pki.crl"),
	[]string{"pki.init.rename", "pki.init.dirsync"},
	Appending("pki.index"),
	Durable("node.dir"),
	Durable("node.floor"),
	[]string{"node.accept.dirsync", "node.load.dirsync"},
	Durable("node.accept.task"),
	Durable("node.start"),
	Durable("node.cancel"),
	Durable("node.limit"),
	Durable("node.freeze"),
	Durable("node.frozen"),
	Durable("node.thaw"),
	Durable("node.publishing"),
	Durable("node.end"),
	Durable("node.told"),
	Durable("node.tidy"),
	Durable("node.reduce"),
	[]string{"queue.commit"},
	Publishing("queue.create"),
	Publishing("queue.backup"),
	Publishing("queue.copy"),
	Publishing("queue.restore"),
)

// Moments are the names that mark no step but a moment between two: nothing can
// act after their effect, because they have none.
var Moments = []string{
	"feedback.open.cut", "job.start", "job.finish", "job.ack",
	"master.start", "master.attempt", "master.state", "master.wait", "master.final",
}

// Durable lists the failpoints of an atomicfile.WriteFile with that point.
func Durable(point string) []string {
	return []string{point + ".write", point + ".sync", point + ".rename", point + ".dirsync"}
}

// Publishing lists the failpoints of a complete file that gets its name.
func Publishing(point string) []string {
	return []string{point + ".sync", point + ".rename", point + ".dirsync"}
}

// Appending lists the failpoints of an atomicfile.Appender with that point.
func Appending(point string) []string {
	return []string{point + ".write", point + ".sync"}
}
