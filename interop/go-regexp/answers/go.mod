module octo-sts.example/interop/go-regexp

go 1.26.0
