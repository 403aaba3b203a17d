# man3.awk - spanguard(3) from the public header: each declaration with the comment
# above it. A comment counts for all declarations down to the next blank line.
#
# usage: awk -f tools/man3.awk include/spanguard.h > spanguard.3

function text(s) {
	gsub(/\\/, "\\e", s)
	gsub(/-/, "\\-", s)
	if (s ~ /^[.']/)
		s = "\\&" s
	return s
}

function flush_block(    i) {
	if (declarations == 0)
		return
	for (i = 1; i <= declarations; i++)
		print (i == 1 ? ".TP\n" : ".TQ\n") "\\fB" text(declaration[i]) "\\fR"
	print comment != "" ? text(comment) : "As the one before."
	declarations = 0
	comment = ""
}

BEGIN {
	print ".TH SPANGUARD 3 2026-11-27 \"spanguard\""
	print ".SH NAME"
	print "spanguard \\- what spanguard offers beside the malloc interface"
	print ".SH SYNOPSIS"
	print "\\fB#include <spanguard.h>\\fR"
	print ".PP"
	print "Link with \\fI\\-lspanguard\\fR, or run the program under \\fBspanguard\\fR(1)."
	print ".SH DESCRIPTION"
}

# the head comment of the file is the introduction
/^\/\* spanguard\.h/ { head = 1 }
head {
	line = $0
	sub(/^\/\* spanguard\.h - /, "", line)
	sub(/^ \*\/?/, "", line)
	sub(/^ /, "", line)
	sub(/ *\*\/$/, "", line)
	if (line != "" && line !~ /^what spanguard offers/) {
		print text(line)
		printed = 1
	} else if (printed)
		print ".PP"
	if ($0 ~ /\*\//) {
		head = 0
		print ".SH FUNCTIONS"
	}
	next
}

/^\/\*/ {
	if (declarations != 0)
		flush_block()
	comment = ""
	in_comment = 1
}

in_comment {
	line = $0
	sub(/^\/\* ?/, "", line)
	sub(/^ \* ?/, "", line)
	done = line ~ /\*\/ *$/
	sub(/ *\*\/ *$/, "", line)
	comment = comment (comment == "" || line == "" ? "" : "\n") line
	if (done)
		in_comment = 0
	next
}

# a struct: its members with what stands beside them
/^struct .*\{$/ {
	name = $2
	printf ".TP\n\\fBstruct %s\\fR\n", text(name)
	print comment != "" ? text(comment) : "Its members:"
	print ".RS"
	comment = ""
	in_struct = 1
	next
}

in_struct && /^\};/ { in_struct = 0; print ".RE"; next }

in_struct {
	line = $0
	sub(/^[ \t]+/, "", line)
	note = ""
	if (match(line, /\/\*.*\*\//)) {
		note = substr(line, RSTART + 3, RLENGTH - 6)
		line = substr(line, 1, RSTART - 1)
	}
	sub(/[ \t]+$/, "", line)
	if (line != "")
		print ".TP\n\\fB" text(line) "\\fR\n" (note != "" ? text(note) : "See its name.")
	next
}

/^[a-z].*\(/ || continued {
	line = $0
	sub(/ SPANGUARD_MALLOC_LIKE/, "", line)
	if (continued) {
		sub(/^[ \t]+/, " ", line)
		declaration[declarations] = declaration[declarations] line
	} else if (line !~ /^extern|^typedef/) {
		declaration[++declarations] = line
	} else
		next
	continued = line !~ /;[ \t]*(\/\*.*)?$/
	next
}

/^$/ { flush_block() }

END {
	flush_block()
	print ".SH SEE ALSO"
	print "\\fBspanguard\\fR(1), \\fBmalloc\\fR(3), \\fBspanguard\\-options\\fR(5)"
}
