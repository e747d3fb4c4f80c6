// Generates Go code from the repository's proto files, as protoc does with its plugins:
//
//	generate PROTO_FOLDER OUTPUT_FOLDER PLUGIN...
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	module = "octo-sts.example/interop/gateway"
	google = "google.golang.org/genproto/googleapis"
)

// The Go package of each proto file that does not name one itself.
var packages = map[string]string{
	"chainguard/platform/oidc/sts.proto": module + "/oidc",
	"octosts/v1/condition.proto":         module + "/condition",
	"google/api/annotations.proto":       google + "/api/annotations",
	"google/api/http.proto":              google + "/api/annotations",
	"google/api/resource.proto":          google + "/api/annotations",
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("generate PROTO_FOLDER OUTPUT_FOLDER PLUGIN...")
	}
	request, err := read(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for _, plugin := range os.Args[3:] {
		if err := run(plugin, request, os.Args[2]); err != nil {
			log.Fatalf("%s: %v", plugin, err)
		}
	}
}

// What plugins are asked.
func read(folder string) ([]byte, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{folder}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	wanted := []string{"chainguard/platform/oidc/sts.proto", "octosts/v1/condition.proto"}
	compiled, err := compiler.Compile(context.Background(), wanted...)
	if err != nil {
		return nil, err
	}
	parameter := "module=" + module
	for file, name := range packages {
		parameter += fmt.Sprintf(",M%s=%s", file, name)
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: wanted, Parameter: &parameter}
	for _, file := range compiled {
		request.ProtoFile = withImports(request.ProtoFile, file)
	}
	return proto.Marshal(request)
}

// Appends a file after those that it imports, each once.
func withImports(files []*descriptorpb.FileDescriptorProto, file protoreflect.FileDescriptor) []*descriptorpb.FileDescriptorProto {
	for _, known := range files {
		if known.GetName() == file.Path() {
			return files
		}
	}
	for i := range file.Imports().Len() {
		files = withImports(files, file.Imports().Get(i).FileDescriptor)
	}
	return append(files, protoutil.ProtoFromFileDescriptor(file))
}

// Asks one plugin and writes its files.
func run(plugin string, request []byte, folder string) error {
	command := exec.Command(plugin)
	command.Stdin, command.Stderr = bytes.NewReader(request), os.Stderr
	answer, err := command.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(answer, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return fmt.Errorf("%s", response.GetError())
	}
	for _, file := range response.File {
		path := filepath.Join(folder, filepath.FromSlash(file.GetName()))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(file.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
