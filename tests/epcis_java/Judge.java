// Lets programs of others judge EPCIS documents: for each file named, one line of JSON on the standard output,
// {"errors": [...]} by the XML schema of EPCIS 2.0 for *.xml, {"hashes": [...], "prehashes": [...]} for *.json,
// {"failed": "..."} where they could not.

import com.fasterxml.jackson.databind.ObjectMapper;
import io.openepcis.constants.CBVVersion;
import io.openepcis.constants.EPCISDocumentType;
import io.openepcis.constants.EPCISVersion;
import io.openepcis.epc.eventhash.EventHashGenerator;
import io.openepcis.validation.SchemaValidator;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.List;
import java.util.Map;

public class Judge {
  public static void main(String[] files) throws IOException {
    ObjectMapper json = new ObjectMapper();
    for (String file : files) {
      Map<String, ?> said;
      try {
        said = file.endsWith(".xml") ? schema(file) : hashes(file);
      } catch (Exception error) {
        said = Map.of("failed", String.valueOf(error));
      }
      System.out.println(json.writeValueAsString(said));
    }
  }

  private static Map<String, ?> schema(String file) throws IOException {
    try (InputStream in = new FileInputStream(file)) {
      List<String> errors =
          new SchemaValidator()
              .validate(in, "application/xml", EPCISDocumentType.CAPTURE, EPCISVersion.VERSION_2_0_0)
              .map(error -> error.getLine() + ":" + error.getColumn() + " " + error.getMessage())
              .collect().asList().await().indefinitely();
      return Map.of("errors", errors);
    }
  }

  private static Map<String, ?> hashes(String file) throws IOException {
    try (InputStream in = new FileInputStream(file)) {
      List<Map<String, String>> found =
          new EventHashGenerator(CBVVersion.VERSION_2_0_0)
              .fromJson(in, "prehash", "sha-256")
              .collect().asList().await().indefinitely();
      return Map.of(
          "hashes", found.stream().map(one -> String.valueOf(one.get("sha-256"))).toList(),
          "prehashes", found.stream().map(one -> String.valueOf(one.get("prehash"))).toList());
    }
  }
}
