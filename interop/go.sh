# What the suites in Go share: source it after lib.sh. Programs are built once for each state of their
# sources and kept outside the checkout; nothing but Go itself has to be there.
#
#   go_build FOLDER [PACKAGE]  prints the path of a program: of the Go module in FOLDER, of its tests if
#                              it has any, or of a package that the module pins
need go "Go 1.26 or later"
export GOTOOLCHAIN=local

go_build() {
  local command=(build) program
  ! compgen -G "$1/*_test.go" >/dev/null || command=(test -c)
  program="$INTEROP_CACHE/go/$(cd "$1" && { find . -type f -print0 | sort -z | xargs -0 sha256sum; echo "${2:-}"; } | sha256sum | cut -c 1-16)"
  [ -x "$program" ] || (cd "$1" && go "${command[@]}" -mod=readonly -buildvcs=false -o "$program" "${2:-.}") >&2
  echo "$program"
}
