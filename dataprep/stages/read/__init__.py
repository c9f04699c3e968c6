"""Raw files, folders, archives and hub datasets in; rows out, each with the file and number it stands at."""
