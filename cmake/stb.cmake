# Defines core_tokensets::stb, the folder of the stb headers, where they are installed; they bring no package of their
# own. Used here and by the installed package.
if(NOT TARGET core_tokensets::stb)
  find_path(CTS_STB_INCLUDE_DIR NAMES stb/stb_image_write.h stb_image_write.h DOC "Folder of the stb headers")
  mark_as_advanced(CTS_STB_INCLUDE_DIR)
  if(CTS_STB_INCLUDE_DIR)
    add_library(core_tokensets::stb INTERFACE IMPORTED GLOBAL)
    target_include_directories(core_tokensets::stb INTERFACE ${CTS_STB_INCLUDE_DIR})
  endif()
endif()
