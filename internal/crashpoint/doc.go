// Package crashpoint names the steps between which a daemon can die, so that a
// test can make it die at each of them. A build without the tag "crashpoints",
// as every installed one is, has none of it: Here is empty and Enabled false,
// and the compiler leaves nothing behind.
//
// A step is a call of Here with a literal, which names one place in the code:
//
//	crashpoint.Here("before cni add")
//
// The list of all steps is read from the source by the test that walks them
// (test/e2e, TestCrashAtEveryStep), so a new one is walked without being written
// down anywhere else. A name that is put together at run time, as the phases of
// records are, stands behind Enabled.
//
// With the tag, two variables of the environment are obeyed:
//
//	CRI_SANDBOX_CRASH_AT="STEP#N"   SIGKILL to itself when it gets to STEP for the
//	                                N-th time; "*" is any step
//	CRI_SANDBOX_CRASH_TRACE=FILE    append the name of each step to FILE
//
// It owns nothing on disk, and is safe for concurrent use.
package crashpoint
